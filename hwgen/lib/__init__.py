"""RTL that units share."""

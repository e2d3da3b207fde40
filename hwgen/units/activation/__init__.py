"""The non-linearity of a lane."""

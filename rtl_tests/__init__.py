"""RTL tests; a package, so that their names may be those of the tests of tests/."""

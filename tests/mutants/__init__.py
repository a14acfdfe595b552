"""Mutants: small faults put into the rule by hand, each of which some quick test has to notice (`make mutants`)."""

"""One question a file: a module with `IDS` and a function `check(evidence, judgement)`. Nothing to register."""

"""One question a file: a module with `IDS` and one public function `check(evidence, judgement)`.

It yields a `Finding` for each problem, and a `Skipped` for IDs that could not be looked at. Nothing to register.
"""

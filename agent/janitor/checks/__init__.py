"""One question per file: a module with one public function `check(evidence, judgement)`.

It yields a `Finding` for each problem, and a `Skipped` for IDs that could not be checked. There is no registration.
"""

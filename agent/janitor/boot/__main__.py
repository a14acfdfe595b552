"""`python -m janitor.boot`, for use without an installation."""

from janitor.boot.stage import main

main()

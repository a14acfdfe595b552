"""`python -m janitor.boot`, where nothing is installed."""

from janitor.boot.stage import main

main()

"""The boot stage: freeing what a hard stop left, before any container runtime starts. Standard library only."""

from janitor.boot.stage import main as main

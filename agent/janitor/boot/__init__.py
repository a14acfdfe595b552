"""The boot stage: frees what a hard stop left behind, before any container runtime starts. Standard library only."""

from janitor.boot.stage import main as main

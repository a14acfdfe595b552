"""The profiles that come with janitor, one TOML file each (core/profiles.py says what is in them)."""

"""The model zoo: metafiles, tables and the page made of them, and configs for users' data."""

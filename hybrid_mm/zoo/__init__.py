"""The model zoo: what stands in the metafiles, its page, and configs for data of one's own."""

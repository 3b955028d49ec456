"""Deduplication: MinHash signatures, connected components, and which of similar texts is kept."""

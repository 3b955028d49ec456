"""The corpus: dated, licensed, deduplicated text, and the audit that proves it free of the exam."""

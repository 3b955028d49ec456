"""Reading: files, archives, tables, web pages and PDFs as drafts of documents, each with its place."""

"""Tools that are not part of the package: what made the files that it ships."""

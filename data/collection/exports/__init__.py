"""Labels as files: for reward training, for other tools, for a spreadsheet."""

"""Reports: numbers in report.json, with a schema, and the page that is made of them."""

"""Web pages and files to fact rows."""

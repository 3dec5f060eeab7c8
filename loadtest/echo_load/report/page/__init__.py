"""The page of the HTML report: charts, tables and styles."""

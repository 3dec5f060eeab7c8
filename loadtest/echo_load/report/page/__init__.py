"""The page of the HTML report: charts, tables and style sheet."""

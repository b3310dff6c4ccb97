"""Reports of a run and comparisons of several: text, JSON, HTML pages, pictures and CSV; reads run folders only."""

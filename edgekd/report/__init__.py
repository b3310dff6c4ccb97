"""Text, JSON and HTML reports of a run; reads run folders, computes nothing new."""

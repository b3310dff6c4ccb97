"""Where images and labels come from; every source gives the same DataSet."""

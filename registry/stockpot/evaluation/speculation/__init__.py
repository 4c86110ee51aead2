"""Several devices at work ahead of the search, whose answer stays that of one."""

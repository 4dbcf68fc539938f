"""What there is to see and to do, one file a page; each gives the routes of its half of the API."""

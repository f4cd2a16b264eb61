"""What runs on a site's data: tasks, and what clients do with them."""

"""A page that shows runs in a browser, live: `flavor ui`, and `flavor run --ui`."""

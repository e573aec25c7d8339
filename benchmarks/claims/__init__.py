"""Published claims, each with the script that tests it at a size that fits a laptop, and its verdict."""

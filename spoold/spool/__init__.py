"""The directory: its layout, its entries and how they move, and the workers that hold them."""

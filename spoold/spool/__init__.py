"""The directory: its layout, its entries and how they move, and who holds them."""

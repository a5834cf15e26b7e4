exec python3 alone.py

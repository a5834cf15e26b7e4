exec python3 count.py "$@"

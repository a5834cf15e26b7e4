exec ./queens 8

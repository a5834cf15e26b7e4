true
(exit 7)

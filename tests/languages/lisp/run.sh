exec sbcl --script main.lisp "$@"

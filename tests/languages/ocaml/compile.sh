ocamlfind ocamlopt -package zarith,str,threads.posix -linkpkg main.ml -o main 2>&1

ocamlfind ocamlopt -thread -package zarith,str,threads.posix -linkpkg main.ml -o main

fpc -v0 main.pas

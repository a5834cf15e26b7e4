ghc -O -v0 -threaded main.hs

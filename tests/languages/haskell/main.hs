import Control.Concurrent
import qualified Data.Map as Map
import Data.List (intercalate)
import System.Environment
import System.IO

main :: IO ()
main = do
    mapM_ (`hSetEncoding` utf8) [stdin, stdout]
    args <- getArgs
    putStrLn (intercalate ", " args)
    text <- getContents
    let rows = Map.fromList [(name, read score :: Int) | [name, score] <- map words (lines text)]
    writeFile "out.txt" (unlines [name ++ " " ++ show score | (name, score) <- Map.toList rows])
    readFile "out.txt" >>= putStr
    box <- newEmptyMVar
    _ <- forkIO (putMVar box $! sum (Map.elems rows))
    total <- takeMVar box
    putStrLn ("sum " ++ show total)
    putStrLn ("2^100 = " ++ show (2 ^ (100 :: Int) :: Integer))

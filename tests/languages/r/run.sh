exec Rscript main.R "$@"

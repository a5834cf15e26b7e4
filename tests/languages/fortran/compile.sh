gfortran -O2 -fopenmp -o main main.f90

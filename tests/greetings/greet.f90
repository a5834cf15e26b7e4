program main
  character(99) :: w
  read *, w
  print '(2a)', 'hello ', trim(w)
end program

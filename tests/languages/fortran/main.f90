program roll
    use, intrinsic :: iso_fortran_env, only: int64
    implicit none
    character(len=32) :: names(16), first, second, held
    integer :: scores(16), count, error, i, j, score
    integer(int64) :: total

    call get_command_argument(1, first)
    call get_command_argument(2, second)
    print '(a, ", ", a)', trim(first), trim(second)
    count = 0
    do
        read (*, *, iostat=error) held, score
        if (error /= 0) exit
        j = count
        do while (j > 0)
            if (names(j) <= held) exit
            names(j + 1) = names(j)
            scores(j + 1) = scores(j)
            j = j - 1
        end do
        names(j + 1) = held
        scores(j + 1) = score
        count = count + 1
    end do
    open (unit=10, file='out.txt', action='write')
    do i = 1, count
        write (10, '(a, 1x, i0)') trim(names(i)), scores(i)
    end do
    close (10)
    open (unit=10, file='out.txt', action='read')
    do i = 1, count
        read (10, *) held, score
        print '(a, 1x, i0)', trim(held), score
    end do
    total = 0
    !$omp parallel do reduction(+:total)
    do i = 1, count
        total = total + scores(i)
    end do
    print '("sum ", i0)', total
end program

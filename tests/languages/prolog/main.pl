:- initialization(main, main).
:- use_module(library(main)).
:- use_module(library(thread)).

row(Line, Name-Score) :-
    split_string(Line, " ", "", [Name, Text]),
    number_string(Score, Text).

main(Arguments) :-
    atomic_list_concat(Arguments, ', ', Title),
    writeln(Title),
    read_string(user_input, _, Text),
    split_string(Text, "\n", "\n", Lines),
    maplist(row, Lines, Rows),
    sort(Rows, Sorted),
    setup_call_cleanup(open('out.txt', write, Out), forall(member(N-S, Sorted), format(Out, "~s ~d~n", [N, S])), close(Out)),
    read_file_to_string('out.txt', Back, []),
    write(Back),
    findall(S, member(_-S, Sorted), Scores),
    first_solution(Sum, [sum_list(Scores, Sum)], []),
    Big is 2 ** 100,
    format("sum ~d~n2^100 = ~d~n", [Sum, Big]).

:- read_line_to_string(user_input, W), format("hello ~w~n", [W]).

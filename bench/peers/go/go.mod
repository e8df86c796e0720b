module cordon/bench

go 1.19

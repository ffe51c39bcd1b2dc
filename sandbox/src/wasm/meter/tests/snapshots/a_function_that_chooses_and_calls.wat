(func (;1;) (type 0) (param i32) (result i32)
  (local i64)
  global.get 0
  local.set 1
  local.get 1
  i64.const -5
  i64.add
  local.set 1
  local.get 1
  i64.const 0
  i64.lt_s
  (@metadata.code.branch_hint "\00")
  if ;; label = @1
    local.get 1
    call 2
    local.set 1
  end
  local.get 0
  if (result i32) ;; label = @1
    local.get 1
    i64.const -7
    i64.add
    local.set 1
    local.get 0
    i32.const 1
    i32.sub
    local.get 1
    global.set 0
    call 1
    global.get 0
    local.set 1
  else
    local.get 1
    i64.const -1
    i64.add
    local.set 1
    i32.const 7
  end
  local.get 1
  global.set 0
)

(func (;1;) (type 0) (param i32)
  (local i64 i32 i32 i64 i64)
  global.get 0
  local.set 1
  local.get 1
  i64.const -2
  i64.add
  local.set 1
  block ;; label = @1
    block ;; label = @2
      local.get 0
      i32.const -1
      i32.xor
      i32.const 2
      i32.add
      i32.const -1
      i32.mul
      i32.const 0
      i32.rotr
      local.tee 3
      i32.const 1
      i32.lt_u
      br_if 0 (;@2;)
      i32.const 0
      local.get 3
      i32.const 1
      i32.add
      i32.const 1
      i32.and
      i32.const -1
      i32.mul
      i32.sub
      local.set 3
      loop ;; label = @3
        local.get 1
        i64.const -10
        i64.add
        local.set 1
        local.get 0
        i32.const 1
        i32.sub
        local.set 0
        local.get 0
        i32.const 1
        i32.sub
        local.set 0
        local.get 1
        i64.const 0
        i64.lt_s
        (@metadata.code.branch_hint "\00")
        if ;; label = @4
          local.get 0
          global.set 1
          local.get 3
          global.set 2
          local.get 1
          call 2
          local.set 1
          global.get 1
          local.set 0
          global.get 2
          local.set 3
        end
        local.get 1
        global.set 0
        local.get 0
        local.get 3
        i32.ne
        br_if 0 (;@3;)
      end
      local.get 0
      i32.const 0
      i32.ne
      i32.eqz
      br_if 1 (;@1;)
    end
    loop ;; label = @2
      local.get 1
      i64.const -5
      i64.add
      local.set 1
      local.get 0
      i32.const 1
      i32.sub
      local.tee 0
      br_if 0 (;@2;)
    end
  end
  local.get 1
  global.set 0
)

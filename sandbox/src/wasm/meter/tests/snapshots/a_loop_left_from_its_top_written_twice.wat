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
      loop ;; label = @3
        loop ;; label = @4
          local.get 1
          i64.const -16
          i64.add
          local.set 1
          block ;; label = @5
            local.get 0
            i32.eqz
            (@metadata.code.branch_hint "\00")
            if ;; label = @6
              local.get 1
              i64.const 13
              i64.add
              local.set 1
              br 5 (;@1;)
            end
            local.get 0
            i32.const 1
            i32.sub
            local.set 0
            br 0 (;@5;)
            local.get 1
            i64.const 8
            i64.add
            local.set 1
            br 3 (;@2;)
          end
          block ;; label = @5
            local.get 0
            i32.eqz
            (@metadata.code.branch_hint "\00")
            if ;; label = @6
              local.get 1
              i64.const 5
              i64.add
              local.set 1
              br 5 (;@1;)
            end
            local.get 0
            i32.const 1
            i32.sub
            local.set 0
            br 0 (;@5;)
            br 3 (;@2;)
          end
          local.get 1
          global.set 0
          local.get 1
          i64.const 0
          i64.ge_s
          (@metadata.code.branch_hint "\01")
          br_if 0 (;@4;)
        end
        local.get 0
        global.set 1
        local.get 1
        call 2
        local.set 1
        global.get 1
        local.set 0
        br 0 (;@3;)
      end
      unreachable
    end
  end
  local.get 1
  global.set 0
)
